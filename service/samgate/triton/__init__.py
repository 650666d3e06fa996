"""A real Triton Inference Server on this machine: installed, started, watched and stopped."""
