"""Keep model repositories in a folder or in object storage, by the hash of their files; nothing here needs a framework.

blobs/SHA256               the content of a file
manifests/SHA256.json      which file has which content, and what the exports are; named by its own hash
signatures/SHA256.sig      optional: an Ed25519 signature of a manifest
tags/NAME                  the hash of a manifest, such as `latest`
"""
