"""Whole models on TensorFlow's raw operations: one graph for prediction, one for a step, one for an epoch.

`plugin.py` is what cnnkit asks, `layers.py` how each operation runs and how its gradient comes back, `network.py` the
way through all of them, `vector.py` the parameters, `graphs.py` what is traced and kept, `program.py` the contract,
`settings.py` what keeps the process's settings of TensorFlow and ours apart, `distributed*.py` training by many as if by
one. Keras takes no part in it.
"""
