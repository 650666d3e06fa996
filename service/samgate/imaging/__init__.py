"""Bytes → pixels → the encoder's input; the decoder's logits → masks → what an answer holds. Pure functions."""
