"""Networks that are cut: their architectures, teachers, and the images they are trained on."""
