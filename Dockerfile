# syntax=docker/dockerfile:1

# Optional packages (an embedded Postgres, a simulated provider) are for a clone. The build sees their types, the image
# goes without. No package runs a script of its own; what the project needs of them is run here by name.
FROM node:24-slim AS base
WORKDIR /app

FROM base AS build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY prisma.config.ts tsconfig.json tsconfig.build.json ./
COPY prisma ./prisma
COPY src ./src
COPY workers ./workers
RUN npx prisma generate && npm run build

FROM base AS packages
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts && npm cache clean --force

FROM base
ENV NODE_ENV=production HOST=0.0.0.0 PORT=3000
COPY --from=packages /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
COPY package.json ./
COPY bin ./bin
COPY prisma/migrations ./prisma/migrations
USER node
EXPOSE 3000
# For the API; roles that do not listen switch it off.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s CMD ["node", "--eval", "fetch('http://127.0.0.1:' + process.env.PORT + '/healthz').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# In exec form, so that signals reach Node, which drains on SIGTERM.
ENTRYPOINT ["node", "bin/turnmill.js"]
CMD ["api"]
