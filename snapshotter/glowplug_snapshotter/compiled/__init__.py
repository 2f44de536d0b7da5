"""Compile caches of engines: what torch.compile, Triton and FlashInfer made, kept for next time.

They belong to a snapshot but come later than it, so they lie beside it, under a key that says for
which engine image, GPU architecture, driver and arguments they hold. Their bytes are code that the
engine will run: whoever may write to the store is trusted, as for everything in it.
"""
