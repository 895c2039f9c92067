"""A backend of cnnkit on PyTorch: whole batches, channels last, no autograd.

`plugin.py` is what cnnkit asks, `steps.py` how each operation runs and how its gradient comes back, `network.py` the
way through all of them, `program.py` the contract, `vector.py` the parameters, `surroundings.py` what keeps the
process's settings of PyTorch and ours apart.
"""
