"""The waist: what every front end produces, every engine runs and every output prints.

Blueprints (`XSpec`) are plain data without a file descriptor; live handles follow the protocols in `engine`.
"""
