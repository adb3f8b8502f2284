"""How many videos each class of the four data sets has under each split, and which test videos the release moved.

Counted from the lists in circulation: the data sets' own and the release's train.csv and test.csv. Part of the
catalogue, in a file of its own for its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Census = Mapping[str, tuple[int, int]]  # label, or SEVERAL → (training, test) videos
SEVERAL = "several"  # videos of two or more classes, which XD-Violence alone has

_UCF: Census = {
    "Normal": (800, 150),
    "Abuse": (48, 2),
    "Arrest": (45, 5),
    "Arson": (41, 9),
    "Assault": (47, 3),
    "Burglary": (87, 13),
    "Explosion": (29, 21),
    "Fighting": (45, 5),
    "RoadAccidents": (127, 23),
    "Robbery": (145, 5),
    "Shooting": (27, 23),
    "Shoplifting": (29, 21),
    "Stealing": (95, 5),
    "Vandalism": (45, 5),
}

# the authors' 2049 normal and 1905 violent training videos: the 13 that the release lacks are all normal
_XD: Census = {
    "A": (2049, 300),
    "B1": (377, 107),
    "B2": (232, 62),
    "B4": (374, 99),
    "B5": (31, 7),
    "B6": (375, 93),
    "G": (273, 85),
    SEVERAL: (243, 47),
}

_SHANG: Census = {
    "normal": (175, 155),
    "car": (2, 3),
    "chasing": (5, 1),
    "circuit": (2, 0),
    "fall": (0, 4),
    "fighting": (4, 2),
    "hurdle": (2, 0),
    "jumping": (3, 1),
    "monocycle": (0, 1),
    "robbery": (2, 2),
    "running": (5, 4),
    "skateboard": (6, 4),
    "step": (1, 0),
    "stoop": (1, 0),
    "throwing_object": (1, 2),
    "vaudeville": (1, 1),
    "vehicle": (28, 19),
}

_MSAD: Census = {
    "Normal": (360, 120),
    "Assault": (7, 8),
    "Explosion": (7, 8),
    "Fighting": (7, 6),
    "Fire": (13, 12),
    "Object_falling": (12, 10),
    "People_falling": (21, 22),
    "Robbery": (15, 14),
    "Shooting": (8, 9),
    "Traffic_accident": (19, 20),
    "Vandalism": (6, 6),
    "Water_incident": (5, 5),
}

# data set → split → class → (training, test) videos
CLASS_VIDEOS: Mapping[str, Mapping[str, Census]] = MappingProxyType({
    "ucfcrime": {"official": _UCF, "released": _UCF},
    "xd": {"official": _XD, "released": {**_XD, "A": (2036, 300), SEVERAL: (290, 0)}},
    # 04_0012 (vehicle) and 05_0023 (jumping) are moved
    "shang": {"official": _SHANG, "released": {**_SHANG, "vehicle": (29, 18), "jumping": (4, 0)}},
    "msad": {"official": _MSAD, "released": {**_MSAD, "Robbery": (14, 15)}},
})

# the 47 test videos of several labels, on which the release trains
XD_MOVED = (
    "Bad.Boys.1995__#01-11-55_01-12-40_label_G-B2-B6",
    "Bad.Boys.II.2003__#00-06-42_00-10-00_label_B2-G-0",
    "Bullet.in.the.Head.1990__#00-41-30_00-44-16_label_B4-G-0",
    "Bullet.in.the.Head.1990__#02-02-00_02-05-22_label_B2-B6-G",
    "Casino.Royale.2006__#00-18-30_00-19-20_label_G-B2-0",
    "Casino.Royale.2006__#00-50-05_00-51-16_label_B1-B2-B6",
    "Casino.Royale.2006__#00-51-16_00-52-41_label_B1-B6-0",
    "Death.Proof.2007__#01-40-41_01-42-17_label_B5-B6-0",
    "Desperado.1995__#00-38-36_00-39-21_label_B1-B2-0",
    "Desperado.1995__#01-14-11_01-17-28_label_B2-G-0",
    "Fast.Five.2011__#00-32-05_00-32-24_label_B1-B2-0",
    "Fast.Furious.2009__#00-21-06_00-21-57_label_B6-B2-0",
    "Fast.Furious.2009__#01-18-00_01-19-00_label_B2-B6-0",
    "Fury.2014__#00-39-36_00-40-44_label_B1-B2-0",
    "God.Bless.America.2011__#00-38-25_00-39-37_label_B2-B5-0",
    "GoldenEye.1995__#01-17-05_01-19-57_label_B2-B1-0",
    "Haywire.2011__#00-03-51_00-05-12_label_B1-B2-0",
    "Haywire.2011__#00-39-07_00-41-48_label_B1-B2-0",
    "Kingsman.The.Secret.Service.2014__#01-43-40_01-44-50_label_B2-G-0",
    "Love.Death.and.Robots.S01E10__#0-01-00_0-02-13_label_B2-G-0",
    "Mission.Impossible.II.2000__#01-38-25_01-38-41_label_B2-B5-0",
    "Mission.Impossible.II.2000__#01-46-20_01-47-11_label_B2-B6-0",
    "Mission.Impossible.V.Rogue.Nation.2015__#01-15-52_01-16-48_label_B6-B2-0",
    "Operation.Red.Sea.2018__#0-29-36_0-30-20_label_B2-G-0",
    "Operation.Red.Sea.2018__#01-37-22_01-37-36_label_G-B2-0",
    "Quantum.Of.Solace.2008__#01-30-26_01-30-42_label_B2-B1-0",
    "Rush.Hour.1998.BluRay__#00-08-08_00-09-15_label_B2-B6-G",
    "Rush.Hour.1998.BluRay__#00-11-05_00-12-10_label_B2-B1-0",
    "Salt.2010__#01-06-27_01-07-07_label_G-B2-0",
    "Salt.2010__#01-12-05_01-12-32_label_B2-G-0",
    "Skyfall.2012__#01-20-05_01-20-20_label_B1-B2-0",
    "Skyfall.2012__#01-55-44_01-56-57_label_B2-G-0",
    "Spectre.2015__#00-44-05_00-44-40_label_B1-B2-0",
    "Spectre.2015__#01-08-58_01-09-20_label_B1-B2-0",
    "Spectre.2015__#01-32-55_01-35-40_label_B1-B2-0",
    "Spectre.2015__#02-02-57_02-03-27_label_B1-B2-0",
    "Taken.3.2014__#01-12-48_01-14-30_label_B2-B1-0",
    "Taken.Extended.Cut.2008__#00-50-45_00-51-04_label_B2-B6-0",
    "The.Bourne.Legacy.2012__#0-59-18_01-01-52_label_B2-B1-0",
    "The.Bourne.Ultimatum.2007__#01-26-27_01-28-03_label_B2-B6-0",
    "The.Fast.and.the.Furious.2001__#00-29-00_00-29-52_label_B2-G-0",
    "The.Hurt.Locker.2008__#0-19-22_0-22-32_label_B2-B1-0",
    "The.World.Is.Not.Enough.1999__#00-07-04_00-07-45_label_G-B2-0",
    "Yellow.Sea.2010__#01-05-40_01-06-47_label_B1-B2-0",
    "v=73uRcX0Dvfc__#00-00-00_00-01-51_label_B6-G-0",
    "v=78u9uBJBqIw__#1_label_B4-B5-0",
    "v=YhCSFZNwfHc__#00-01-15_00-01-42_label_G-B2-0",
)
