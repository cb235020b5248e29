"""What lines of Spark's log are known to mean, the plainest first. Each was seen in a real log; see ``tests/unit/spark``."""

from __future__ import annotations

import re

import attrs


@attrs.frozen(kw_only=True)
class Symptom:
    """What a text in a log means.

    :param pattern: the text; its groups fill ``cause``.
    :param cause: what is wrong, in one sentence.
    :param expected: what Spark needs.
    :param hint: what to do.
    :param retryable: whether it may pass by itself.
    """

    pattern: re.Pattern[str]
    cause: str
    expected: str
    hint: str
    retryable: bool = False


_JAVA = "Java 17 (Spark 3.5 runs on 8, 11 and 17, Spark 4 on 17 and newer)"
_SET_JAVA = "install it on the worker and set JAVA_HOME for the task, for example with env_vars={'JAVA_HOME': '/usr/lib/jvm/...'}"
_PACKAGES = (
    "leave packages='auto', or name the runtime that fits the cluster's Spark and Scala; "
    "with packages=None the cluster itself must have it"
)
_REACH = "a catalog that Spark's driver and executors reach, too, not only the Airflow worker"

MISSING_PROGRAM = Symptom(
    pattern=re.compile(r"(?!)"),
    cause="the program {0!r} is not there",
    expected="Spark's spark-submit on the PATH of the worker",
    hint="install Spark on the worker and put its bin folder on the PATH, or set spark_connect_conn_id to run on a server instead",
)

SYMPTOMS: tuple[Symptom, ...] = (
    Symptom(
        pattern=re.compile(r"JAVA_HOME is not set"),
        cause="there is no Java on the worker: JAVA_HOME is not set, and no java is on the PATH",
        expected=_JAVA,
        hint=_SET_JAVA,
    ),
    Symptom(
        pattern=re.compile(r"spark-class: line \d+: (\S+/bin/java): No such file or directory"),
        cause="JAVA_HOME is wrong: there is no {0}",
        expected=_JAVA,
        hint=_SET_JAVA,
    ),
    Symptom(
        pattern=re.compile(r"UnsupportedClassVersionError: .*class file version (\d+)\.\d+.*up to (\d+)\.\d+"),
        cause="Java is too old: a class asks for class file version {0}, and this Java takes versions up to {1}",
        expected=_JAVA,
        hint=_SET_JAVA,
    ),
    Symptom(
        pattern=re.compile(r"(UnsupportedOperationException: getSubject is [^\n]*)"),
        cause="Java is too new for this Spark: {0}",
        expected=_JAVA,
        hint=_SET_JAVA,
    ),
    Symptom(
        pattern=re.compile(r"((?:Invalid (?:maximum|initial) heap|Could not reserve|Unrecognized VM)[^\n]*)"),
        cause="Java does not start: {0}",
        expected="memory as Java writes it, and no more than the machine has",
        hint="correct driver_memory, or the Java options in conf",
    ),
    Symptom(
        pattern=re.compile(r"Could not find valid SPARK_HOME|spark-submit: line \d+: \S*spark-class: No such file"),
        cause="spark-submit does not find the Spark it belongs to",
        expected="a Spark installation around it, or SPARK_HOME",
        hint="set SPARK_HOME for the task, for example with env_vars={'SPARK_HOME': '/opt/spark'}",
    ),
    Symptom(
        pattern=re.compile(r"unresolved dependency: ([^\],]+?)(?:: not found)?[\],]"),
        cause="the package {0} could not be had",
        expected="Maven Central, or a mirror of it, that spark-submit reaches",
        hint="name the mirror in repositories, or in the file that conf['spark.jars.ivySettings'] names; or put the jars on the "
        "cluster and set packages=None",
        retryable=True,
    ),
    Symptom(
        pattern=re.compile(
            r"Cannot find catalog plugin class for catalog \S+ ([\w.$]+\w)"
            r"|ClassNotFoundException: (org\.apache\.iceberg\.spark\.[\w.$]+)"
        ),
        cause="Iceberg's Spark runtime is not there: no class {0}",
        expected="iceberg-spark-runtime among Spark's jars",
        hint=_PACKAGES,
    ),
    Symptom(
        pattern=re.compile(r"No suitable driver found for (jdbc:\w+)"),
        cause="there is no JDBC driver for {0} among Spark's jars",
        expected="the driver of the database that the SQL catalog is in",
        hint=_PACKAGES,
    ),
    Symptom(
        pattern=re.compile(
            r"(?:ClassNotFoundException|NoClassDefFoundError):? ((?:org[./]apache[./]iceberg[./](?:aws|gcp|azure)"
            r"|software[./]amazon|com[./]google[./]cloud|com[./]azure)\S*)"
        ),
        cause="the classes for the tables' storage are not there: no {0}",
        expected="iceberg-aws-bundle, iceberg-gcp-bundle or iceberg-azure-bundle among Spark's jars",
        hint="packages='auto' adds it where properties of the catalog or the target's location say which; otherwise name it",
    ),
    Symptom(
        pattern=re.compile(
            r"((?:NoSuchMethodError|NoClassDefFoundError|NoSuchFieldError): '?(?:\S+ )?scala[./][^\n]*)"
        ),
        cause="a jar is built for another Scala than Spark's: {0}",
        expected="jars for the Scala that Spark is built with (spark-submit --version says which)",
        hint=_PACKAGES,
    ),
    Symptom(
        pattern=re.compile(
            r"((?:NoSuch(?:Method|Field)Error|NoClassDefFoundError|IncompatibleClassChangeError|AbstractMethodError)[: ][^\n]*)"
        ),
        cause="a jar is built for another Spark than the one that runs: {0}",
        expected="the iceberg-spark-runtime of the very Spark that runs, once",
        hint=_PACKAGES,
    ),
    Symptom(
        pattern=re.compile(r"(PYTHON_VERSION_MISMATCH|Python in worker has different version[^\n]*)"),
        cause="driver and executors run different versions of Python: {0}",
        expected="one minor version of Python on both",
        hint="set PYSPARK_PYTHON and PYSPARK_DRIVER_PYTHON with env_vars, or spark.pyspark.python and its .driver.python in conf",
    ),
    Symptom(
        pattern=re.compile(r'Cannot run program "([^"]+)"'),
        cause="there is no program {0!r} where Spark runs",
        expected="the same Python on driver and executors",
        hint="set PYSPARK_PYTHON with env_vars, or spark.pyspark.python in conf, to one that is there",
    ),
    Symptom(
        pattern=re.compile(r"can't open file '([^']+)'"),
        cause="the application {0!r} is not there",
        expected="a file that the driver can read",
        hint="give its absolute path on the worker, or its address in a store that Spark reads",
    ),
    Symptom(
        pattern=re.compile(r"ModuleNotFoundError: (No module named '[^']+')"),
        cause="Python on Spark's side: {0}",
        expected="a module that driver and executors can import",
        hint="ship it with py_files, install it on the cluster, or name the function 'path/to/file.py:function' to ship its file",
    ),
    Symptom(
        pattern=re.compile(r"Failed to connect to master (\S+)"),
        cause="Spark's master {0} does not answer",
        expected="a cluster that the worker reaches",
        hint="correct the Spark connection, or see that the master is up and that it reaches the worker, too",
        retryable=True,
    ),
    Symptom(
        pattern=re.compile(r"((?:NotAuthorizedException|ForbiddenException|AccessDeniedException)[: ][^\n]*)"),
        cause="Spark may not do that: {0}",
        expected="the same rights for Spark as for the worker: to read the sources and to write the target and its branches",
        hint="see that the credentials of the Iceberg connection are valid for Spark, too; give others with catalog_conf",
    ),
    Symptom(
        pattern=re.compile(r"S3Exception: ([^\n]*(?:Status Code: 403|Access Denied)[^\n]*)"),
        cause="Spark may not read or write the tables' storage: {0}",
        expected="rights on the storage for Spark's driver and executors",
        hint="give the cluster's role the rights, or credentials with catalog_conf",
    ),
    Symptom(
        pattern=re.compile(r"(UnknownHostException: [^\n]*|UnresolvedAddressException)"),
        cause="a host of the catalog or its storage is not known to Spark: {0}",
        expected=_REACH,
        hint="use a name that the cluster resolves in the Iceberg connection, or another uri with catalog_conf",
        retryable=True,
    ),
    Symptom(
        pattern=re.compile(
            r"(Connect to \S+ failed[^\n]*|Connection to \S+ refused|ConnectException: [^\n]*|SocketTimeoutException[^\n]*)"
        ),
        cause="the catalog or its storage does not answer Spark: {0}",
        expected=_REACH,
        hint="see that it is up, and that its address is not one of the worker alone (localhost); catalog_conf gives another",
        retryable=True,
    ),
    Symptom(
        pattern=re.compile(
            r"((?:java\.lang\.)?OutOfMemoryError[^\n]*|killed by YARN for exceeding [^\n]*|OOMKilled"
            r"|ExecutorLostFailure[^\n]*\b137\b[^\n]*)"
        ),
        cause="Spark ran out of memory: {0}",
        expected="memory for driver and executors that fits the data",
        hint="raise driver_memory or executor_memory, or spark.executor.memoryOverhead in conf",
        retryable=True,
    ),
    Symptom(
        pattern=re.compile(r"Error code is: (-9|137)\b"),
        cause="spark-submit was killed (exit code {0})",
        expected="it to run until the application ends",
        hint="if nobody killed it, the machine ran out of memory: lower driver_memory, or use deploy_mode='cluster'",
        retryable=True,
    ),
)
