/* The agent of a profile who is too busy to let anybody in: a start under that profile waits. */
#ifndef AGENT_H
#define AGENT_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct agent {
    char dir[32], path[48], profile[256];
    int sockets[8], count;
};

/* 0, or -1. */
static int busy_agent(struct agent *agent) {
    struct sockaddr_un address;
    agent->count = 0;
    strcpy(agent->dir, "/tmp/zind-agent-XXXXXX");
    if (mkdtemp(agent->dir) == NULL) return -1;
    snprintf(agent->path, sizeof agent->path, "%s/agent", agent->dir);
    snprintf(agent->profile, sizeof agent->profile,
             "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"listenerPath\": \"%s\","
             " \"syscalls\": [{\"names\": [\"sethostname\"], \"action\": \"SCMP_ACT_NOTIFY\"}]}",
             agent->path);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    strcpy(address.sun_path, agent->path);
    while (agent->count < 8) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) return -1;
        agent->sockets[agent->count++] = fd;
        if (agent->count == 1) {
            if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 0) != 0) return -1;
        } else if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
            return errno == EAGAIN ? 0 : -1;
        }
    }
    return -1;
}

static int agent_ends(struct agent *agent) {
    while (agent->count > 0) {
        close(agent->sockets[--agent->count]);
    }
    return unlink(agent->path) == 0 ? rmdir(agent->dir) : -1;
}

#endif
