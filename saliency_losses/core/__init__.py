"""The mathematics of the losses, written once over the primitives of `core.ops.Ops`."""
