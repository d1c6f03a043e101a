"""Container images of the product, and their local stand-ins where no registry can be reached.

`build.build(names)` is the entry point; `hack/release images` is its command line.
"""
