"""cnnkit on an NVIDIA GPU through CuPy: CUDA kernels of its own, and cuDNN where it is installed."""
