"""Networks on picture and video files: what tools/image_demo.py is made of."""
