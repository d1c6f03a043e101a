"""What operator and runtime agree on: values, names, documents and pure decisions."""
