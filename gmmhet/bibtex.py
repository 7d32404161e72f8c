"""
@article{Chen2021,
    title = {Deep learning-based mixed-dimensional Gaussian mixture model for characterizing variability \
in cryo-EM},
    author = {Chen, Muyuan and Ludtke, Steven J.},
    journal = {Nature Methods},
    volume = {18},
    pages = {930--936},
    year = {2021},
    doi = {https://doi.org/10.1038/s41592-021-01220-5}
}

@article{McInnes2018,
    title = {UMAP: Uniform Manifold Approximation and Projection},
    author = {McInnes, Leland and Healy, John and Saul, Nathaniel and Gro{\\ss}berger, Lukas},
    journal = {Journal of Open Source Software},
    volume = {3},
    number = {29},
    pages = {861},
    year = {2018},
    doi = {https://doi.org/10.21105/joss.00861}
}
"""
