"""From a fresh clone to a cited answer: the parts of `hack/quickstart`."""
