"""Coverage-guided fuzz targets: each module has `test_one_input`, and `python -m fuzz.run TARGET` runs it."""
