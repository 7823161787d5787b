"""The demo: real tasks on a plate of real images, through the REST API of an embedded stack."""
