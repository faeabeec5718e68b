"""Parameters of configurations while a second version of a network is tried (docs/adr/0048).

A network's configuration names its second version and what that was exported from; that of `detect_faces` names the
share of the jobs that use it.
"""

VERSION, EXPORT, CHECKPOINT = "trial_version", "trial_export", "trial_checkpoint"
SHARE = "trial_share"
