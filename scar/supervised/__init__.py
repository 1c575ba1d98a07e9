"""The models that runs start from: SFT policies and reward models trained here."""
