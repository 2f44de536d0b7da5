"""Where loaded tensors live: a small protocol for devices, and the host and CUDA behind it.

Nothing here needs torch or a CUDA toolkit: the driver's own library is called through ctypes, and
tensors are handed over as DLPack capsules.
"""
