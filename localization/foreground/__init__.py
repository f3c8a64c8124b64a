"""The foreground direction w* (Song et al., ICCV 2023): ``statistics`` sums features, ``closed_form`` computes w*, tau
and alpha from the sums, ``solvers`` minimises losses at finite lambda, ``classes`` predicts the classes of photos.
"""
