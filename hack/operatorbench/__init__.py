"""How much the operator takes for many objects: the measuring behind `hack/bench/operator`."""
