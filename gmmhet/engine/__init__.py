"""The science of gmmhet, without Scipion.

Conventions, stated once and used everywhere below
--------------------------------------------------
Lengths are in Å with the origin at the box centre, pixel ``L // 2``; axes are x, y, z and a map array is
indexed ``[z, y, x]``.

A rotation ``A = R(rot, tilt, psi)`` (RELION's Euler angles) takes a point of the molecule into the frame of
the image: ``A = (Rz(rot) Ry(tilt) Rz(psi))^T``. A particle's ``shift_angst`` is where the molecule's origin
lies in the image, so it is MINUS RELION's ``rlnOriginX/YAngst``, which say how to move the image to centre
it.

Density is positive ("white"); images are multiplied by ``CTF(k) = sin(gamma + asin(Q0))`` with
``gamma = pi lambda dz k^2 - pi/2 Cs lambda^3 k^4`` and positive underfocus, as in RELION.

Letters: B particles in a batch, N Gaussians, L box (px), S shells, D latent dimension, M anchors.
"""
