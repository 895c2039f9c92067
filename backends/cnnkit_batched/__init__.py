"""Batched layers over an array namespace: `numpy-batched` on a CPU, and what `cupy` runs on a GPU.

`engine.py` says what a network asks of an array library; `plain_engine.py` is that in the words of the array API alone,
`numpy_engine.py` what is quicker in NumPy. `layers.py` and `network.py` put calls of an engine in a row, which then run
again and again; `vector.py` keeps all parameters in one, `memory.py` and `sizing.py` say what a program takes before it is
taken; `team.py` and `workers.py` share slices of a batch among threads; `program.py` is the contract.
"""
