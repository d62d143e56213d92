"""Pictures of runs. They need the extra `report`."""
