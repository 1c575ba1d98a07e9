"""What every run of a config will take, before anything is downloaded: parameters, memory, FLOPs, device-hours."""
