"""What a run is: command line, experiment file, store, pipeline, one file per stage, report, the miniature
world.
"""

__version__ = "0.2.0"
