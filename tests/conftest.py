"""One thread for all tests: small networks train no slower on it, and a busy machine harms them less."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is first imported, here and in child processes
