"""What `helm test` runs: the drawn disc beside this file, segmented by the server, has to be as large as it was drawn.

SERVER is host:port; CA, CERTIFICATE and KEY, files, may be empty; SAMGATE_TOKEN is the client's.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

CENTRE, RADIUS = (100, 120), 60
TOLERANCE = 0.1
TIMEOUT_S = 120

files = {"--ca": "CA", "--cert": "CERTIFICATE", "--key": "KEY"}
flags = [part for flag, name in files.items() if os.environ.get(name) for part in (flag, os.environ[name])]
photo = Path(__file__).with_name("photo.jpg")
point = f"{CENTRE[0]},{CENTRE[1]}"
command = ["samgate", "segment", str(photo), "--point", point, "--server", os.environ["SERVER"], *flags, "--json", "-"]
done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
if done.returncode:
    sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
answer = json.loads(done.stdout)
area, drawn = answer["masks"][0]["area"], math.pi * RADIUS**2
print(f"{answer['variant']} found a mask of {area} pixels; the disc has {drawn:.0f}")
if abs(area / drawn - 1) > TOLERANCE:
    sys.exit(f"that is more than {TOLERANCE:.0%} off")
