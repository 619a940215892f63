"""Training of (network, objective, data) on torch; knows nothing of scikit-learn."""
