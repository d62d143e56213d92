"""Figures of runs. They need the extra `report`."""
