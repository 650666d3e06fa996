"""SegEvery: which prompts find every mask of an image, and which of the masks that come back are kept. Pure."""
