# ruff: noqa
# fmt: off
# What the rules of python.yaml find (ruleid) and leave alone (ok). Never imported.


def sql(connection, text, table, ident):
    # ruleid: sql-from-strings
    connection.execute("delete from t where id = " + ident)
    # ruleid: sql-from-strings
    connection.execute("delete from %s" % table)
    # ruleid: sql-from-strings
    connection.execute(text("select id from t where id = '{}'".format(ident)))
    # ok: sql-from-strings
    connection.execute(text("select id from t where id = :id"), {"id": ident})


def commands(subprocess, os, name):
    # ruleid: shell
    subprocess.run(f"tar xf {name}", shell=True)
    # ruleid: shell
    os.system("rm " + name)
    # ok: shell
    subprocess.run(["tar", "xf", name], check=True)


def loading(pickle, torch, blob, file):
    # ruleid: code-from-data
    pickle.loads(blob)
    # ruleid: code-from-data
    torch.load(file)
    # ruleid: code-from-data
    eval(blob)
    # ok: code-from-data
    torch.load(file, map_location="cpu", weights_only=True)


def peers(requests, ssl, url, context):
    # ruleid: unverified-tls
    requests.get(url, verify=False, timeout=5)
    # ruleid: unverified-tls
    context.check_hostname = False
    # ruleid: unverified-tls
    context.verify_mode = ssl.CERT_NONE
    # ok: unverified-tls
    requests.get(url, timeout=5)
    # ruleid: request-without-timeout
    requests.post(url, json={})
    # ok: request-without-timeout
    requests.post(url, json={}, timeout=10)


def tokens(jwt, token, key):
    # ruleid: unverified-token
    jwt.decode(token, options={"verify_signature": False})
    # ruleid: unverified-token
    jwt.decode(token, key, algorithms=["RS256", "none"])
    # ok: unverified-token
    jwt.decode(token, key, algorithms=["RS256"])


def comparing(hmac, signature, wanted, token_count, secret_kind, other):
    # ruleid: secret-compared-in-variable-time
    if signature == wanted:
        return True
    # ok: secret-compared-in-variable-time
    if signature == "":
        return False
    # ok: secret-compared-in-variable-time
    if token_count == other or secret_kind == other:
        return False
    # ok: secret-compared-in-variable-time
    return hmac.compare_digest(signature, wanted)


def hashing(hashlib, blob):
    # ruleid: weak-hash
    hashlib.md5(blob)
    # ok: weak-hash
    hashlib.md5(blob, usedforsecurity=False)
    # ok: weak-hash
    hashlib.sha256(blob)


def drawing(random, secrets):
    # ruleid: guessable-random
    reset_token = random.getrandbits(64)
    # ok: guessable-random
    jitter = random.uniform(0, 1)
    # ok: guessable-random
    session_token = secrets.token_urlsafe()
    return reset_token, jitter, session_token


def unpacking(shutil, zipfile, tar, folder):
    with zipfile.ZipFile("x.zip") as archive:
        # ok: archive-outside-its-folder
        archive.extractall(folder)
    # ruleid: archive-outside-its-folder
    tar.extractall(folder)
    # ok: archive-outside-its-folder
    tar.extractall(folder, filter="data")
    # ruleid: archive-outside-its-folder
    shutil.unpack_archive("x.tar", folder)
