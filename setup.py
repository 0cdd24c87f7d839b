"""C functions of Nissa. pyproject.toml has everything else."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "nissa.kernels._native",
            sources=[f"src/nissa/kernels/native/{name}.c" for name in ("digest", "parallel", "squares", "statistics")],
            depends=[f"src/nissa/kernels/native/{name}.h" for name in ("elements", "parallel", "tensors")],
            # Sums may be reordered, so that loops are vectorized. The other options of -ffast-math would break NaN and
            # infinity.
            extra_compile_args=[
                "-std=gnu11",
                "-O3",
                "-g0",
                "-fno-math-errno",
                "-fassociative-math",
                "-fno-signed-zeros",
                "-fno-trapping-math",
            ],
            # Without a compiler, Nissa is installed all the same, and warns at its first start that it is slower.
            optional=True,
        )
    ]
)
