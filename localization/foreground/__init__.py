"""The foreground predictor w* (Song et al., ICCV 2023): ``statistics`` sums features, ``solvers`` fit other losses,
``classes`` predicts classes of photos.
"""
