"""The benchmark around AVadCLIP: its metric of classes in time, mAP@IoU."""
