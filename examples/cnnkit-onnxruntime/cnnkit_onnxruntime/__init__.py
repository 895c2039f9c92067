"""A backend of cnnkit on ONNX Runtime, which predicts.

`plugin.py` is what cnnkit asks, `backend.py` the contract, `rewriting.py` the few operators that are written otherwise,
because the runtime has no kernel for them or one that is not exact.
"""
