"""Children as whole objects, a file a tier; pure functions of a `Context`."""
