"""Whole models on TensorFlow's raw operations: one graph for prediction, one for a step, one for an epoch.

`plugin.py` is what cnnkit asks, `program.py` the contract. `layers.py` is how each operation runs and how its gradient
comes back, `network.py` the way through all of them (`mixed.py` in float16), `update.py` the optimizer's step,
`vector.py` the parameters, `masks.py` what dropout keeps, `graphs.py` what is traced and kept. `settings.py` keeps the
process's settings of TensorFlow and ours apart, `distributed*.py` is training by many as if by one, `savedmodel.py`
what TensorFlow alone can load. Keras takes no part in it.
"""
