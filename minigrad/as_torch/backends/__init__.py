"""`torch.backends`: switches of PyTorch's libraries. They can be set and read, and change nothing: minigrad gives the
same bits on each run, and computes float32 in float32."""
