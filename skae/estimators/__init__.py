"""The scikit-learn estimators, one variant a file."""
