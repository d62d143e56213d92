"""What every room uses: process groups, random numbers, the torchaudio guard."""
