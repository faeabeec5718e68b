"""HTTP server of the job: receives the form, answers with the mp4. Run it with `python -m gateway`.

    form ─► uploads (streamed into the request's folder) ─► avatar.form (AvatarRequest) ─► service (queue, job) ─► mp4

The gateway holds no step of the job itself; `avatar.pipeline.render` does the work.
"""
