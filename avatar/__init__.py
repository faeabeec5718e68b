"""The job itself, as a library: a request in, a stream of progress and an mp4 out.

It knows neither HTTP nor gRPC servers; the models are reached through `avatar.inference.protocol.Models`.
"""
