"""Isometry constants at the sizes of the experiments of Gatmiry et al. 2023: 60 x 60 and 600 Gaussian measurements.

One step of the relaxation takes about ten seconds on one core, so there are few. Thirty bring `most_proven` of rank one to 3.8.
"""

from isometry import measure

if __name__ == "__main__":
    measure("isometry_published", [("gaussian", 60, 600, 1, 5), ("gaussian", 60, 600, 2, 0)])
