"""
x
=
y
"""

from skae import Autoencoder

print(Autoencoder)
