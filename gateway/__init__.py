"""The job's HTTP face: the form in, the mp4 out. `python -m gateway`.

    form ─► uploads (streamed into the request's folder) ─► contract (AvatarRequest) ─► service (queue, job) ─► mp4

It holds no step of the job itself: that is `avatar.pipeline.render`.
"""
