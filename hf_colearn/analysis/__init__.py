"""What finished runs say: statistics, latents, plots and the report. Never imported by the trainer."""
