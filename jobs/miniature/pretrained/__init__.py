"""The pretrained world: word problems in plain English, and teachers and students made from language models
that ordinary packages bring.
"""
