"""An engine whose graphs run on Triton Inference Server."""
